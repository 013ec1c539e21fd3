#!/usr/bin/perl
# Prints the commands of a Markdown page in their order, one a line: what its `sh` blocks hold,
# without comments, and what stands in backticks and begins like a command. A comment line of a
# block that names a machine is printed as it is.
use strict;
use warnings;

my $word = qr/(?:starling|systemctl|journalctl|curl|apt-get|usermod|tar|chown|rm|df|ss|ssh|scripts\/\S+)/;
local $/;
my $page = <>;
for my $part (split /^(```sh\n.*?^```\n)/ms, $page) {
    if ($part =~ /^```sh\n(.*)^```\n/ms) {
        my $block = $1;
        $block =~ s/\s*\\\n\s*/ /g;
        $block =~ s/^(?!# .*machine)(.*?)[ \t]*(?<!\S)# .*$/$1/mg;
        $block =~ s/\|\n\s*/| /g;
        print "$_\n" for grep { length } split /\n/, $block;
    } else {
        $part =~ s/^```.*?^```$//msg;
        while ($part =~ /`([^`]+)`/g) {
            my $span = $1;
            $span =~ s/\s+/ /g;
            print "$span\n" if $span =~ /^$word \S/ || $span =~ /^scripts\//;
        }
    }
}
