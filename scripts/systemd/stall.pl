#!/usr/bin/perl
# Holds one thread of a process, by its name, until the process ends; the others go on. A signal
# would stop them all, so this is done as a debugger does it.
#
#   stall.pl PID THREAD
use strict;
use warnings;
use POSIX qw(uname);

my ($SEIZE, $INTERRUPT, $ANY_THREAD) = (0x4206, 0x4207, 0x40000000);
my %number = (x86_64 => 101, aarch64 => 117, riscv64 => 117);

my ($pid, $name) = @ARGV;
my $ptrace = $number{ (uname)[4] } // die "stall: no number of ptrace for this machine\n";
for my $path (glob "/proc/$pid/task/*") {
    open my $file, '<', "$path/comm" or next;
    chomp(my $found = <$file> // '');
    next if $found ne $name;
    my ($thread) = $path =~ /(\d+)$/;
    $thread += 0;
    for my $request ($SEIZE, $INTERRUPT) {
        die "stall: ptrace: $!\n" if syscall($ptrace, $request, $thread, 0, 0) < 0;
    }
    # It has stopped, by which perl says 0, and then it ends: a thread that nobody waits for would
    # keep its process from ending.
    until (waitpid($thread, $ANY_THREAD) < 0 || $?) { }
    exit 0;
}
die "stall: $pid has no thread called $name\n";
