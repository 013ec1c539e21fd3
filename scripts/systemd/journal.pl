#!/usr/bin/perl
# Judges what daemons wrote into a journal: each line is as the published schema says, none is lost,
# and the journal's own fields say the same.
#
#   journalctl -o json | journal.pl SCHEMA.json
#
# Prints what is wrong, and on the last line how much there was.
use strict;
use warnings;
use B;
use JSON::PP;

# More would hide the first of them.
my $faults_max = 10;
my %priority = (INFO => 6, WARN => 4, ERROR => 3);

my $json = JSON::PP->new->allow_nonref;
my $schema = $json->decode(slurp($ARGV[0]));
my ($lines, $faults, %last) = (0, 0);

while (my $text = <STDIN>) {
    my $entry = $json->decode($text);
    my $said = $entry->{MESSAGE};
    # What is not UTF-8 comes as numbers.
    $said = join '', map { chr } @$said if ref $said eq 'ARRAY';
    next unless defined $said;
    my $runs = ($entry->{_CMDLINE} // '') =~ m{^/usr/bin/starling run\b};
    next unless $runs || defined $entry->{STARLING_EVENT};
    # How a command says why it did not even begin; `starling run` is one.
    next if $said =~ /^starling: / && !defined $entry->{STARLING_EVENT};
    $lines++;
    my $event = eval { $json->decode($said) };
    if (ref $event ne 'HASH') { fault("no event: $said"); next }
    my $why = mismatch($schema, $event);
    fault("$why: $said") if $why;
    follow($entry, $event, $said) unless $why;
}
my $boots = keys %last;
print "$lines lines of $boots boots, $faults faults\n";
exit($faults || !$lines ? 1 : 0);

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    return <$file> // '';
}

sub fault {
    my ($what) = @_;
    print substr($what, 0, 300), "\n" if ++$faults <= $faults_max;
}

# Numbers of a boot begin with one and have no gap; the journal's fields are those of the line.
sub follow {
    my ($entry, $event, $said) = @_;
    # What fails before it has counted its boot is told apart by its process.
    my $boot = $event->{boot} ? "$event->{node} $event->{boot}" : "process $entry->{_PID}";
    my $due = ($last{$boot} // 0) + 1;
    fault("seq $event->{seq} where $due is due: $said") if $event->{seq} != $due;
    $last{$boot} = $event->{seq};
    my %wanted = (
        PRIORITY => $priority{ $event->{severity} },
        STARLING_EVENT => $event->{event},
        STARLING_NODE => $event->{node},
        STARLING_SEQ => $event->{seq},
        STARLING_PEER => $event->{peer},
        STARLING_REASON => $event->{reason},
    );
    for my $field (sort keys %wanted) {
        my ($found, $wanted) = ($entry->{$field} // '', $wanted{$field} // '');
        fault("$field is '$found', not '$wanted': $said") if $found ne $wanted;
    }
}

sub kind {
    my ($value) = @_;
    return 'null' unless defined $value;
    return ref $value eq 'ARRAY' ? 'array' : ref $value eq 'HASH' ? 'object' : 'boolean' if ref $value;
    my $flags = B::svref_2object(\$value)->FLAGS;
    return 'string' if $flags & B::SVf_POK;
    return $value == int $value ? 'integer' : 'number';
}

# Why a value is not as a schema says; nothing if it is. Knows the words that ours has, and no more.
sub mismatch {
    my ($schema, $value) = @_;
    my %left = map { $_ => 1 } keys %$schema;
    delete @left{qw($schema $defs title description)};
    my %is = map { $_ => 1 } kind($value);
    $is{number} = 1 if $is{integer};
    for my $word (sort keys %left) {
        my $rule = $schema->{$word};
        my $why = $word eq 'type' ? (grep { $is{$_} } ref $rule ? @$rule : $rule) ? '' : 'a wrong type'
            : $word eq '$ref' ? mismatch(defined_as($rule), $value)
            : $word eq 'const' ? $json->encode($rule) eq $json->encode($value) ? '' : "not $rule"
            : $word eq 'minimum' ? !$is{number} || $value >= $rule ? '' : "below $rule"
            : $word eq 'pattern' ? !$is{string} || $value =~ /$rule/ ? '' : "not like $rule"
            : $word eq 'items' ? !$is{array} ? '' : (grep { length } map { mismatch($rule, $_) } @$value)[0] // ''
            : $word eq 'properties' ? properties($schema, $value)
            : $word eq 'required' ? (map { "no $_" } grep { !exists $value->{$_} } @$rule)[0] // ''
            : $word eq 'additionalProperties' ? ''
            : $word eq 'oneOf' ? one_of($rule, $value)
            : die "the schema has a word that is not known here: $word\n";
        return $why if $why;
    }
    return '';
}

sub defined_as {
    my ($reference) = @_;
    my ($name) = $reference =~ m{^#/\$defs/(\w+)$} or die "no way to $reference\n";
    return $schema->{'$defs'}{$name} // die "nothing is defined as $name\n";
}

sub properties {
    my ($schema, $value) = @_;
    return '' unless ref $value eq 'HASH';
    for my $key (sort keys %$value) {
        my $rule = $schema->{properties}{$key};
        return "unknown field $key" if !$rule && exists $schema->{additionalProperties};
        my $why = $rule ? mismatch($rule, $value->{$key}) : '';
        return "$key is $why" if $why;
    }
    return '';
}

sub one_of {
    my ($rules, $value) = @_;
    my $name = ref $value eq 'HASH' ? $value->{event} // '' : '';
    my @found = grep { $_->{properties}{event}{const} eq $name } @$rules;
    return @found . " kinds of event called '$name'" if @found != 1;
    return mismatch($found[0], $value);
}
