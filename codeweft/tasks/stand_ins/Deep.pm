# Of Test::Deep: whether two plain structures are equal, which is all that MultiPL-E's tests ask.
BEGIN {
    package Test::Deep;
    $INC{"Test/Deep.pm"} = __FILE__;
    sub import { no strict "refs"; *{caller() . "::eq_deeply"} = \&eq_deeply; }
    sub eq_deeply {
        my ($left, $right) = @_;
        return !defined $left && !defined $right if !defined $left || !defined $right;
        return 0 if ref $left ne ref $right;
        if (ref $left eq "ARRAY") {
            return 0 if @$left != @$right;
            for my $place (0 .. $#$left) { return 0 if !eq_deeply($left->[$place], $right->[$place]); }
            return 1;
        }
        if (ref $left eq "HASH") {
            return 0 if keys %$left != keys %$right;
            for my $key (keys %$left) {
                return 0 if !exists $right->{$key} || !eq_deeply($left->{$key}, $right->{$key});
            }
            return 1;
        }
        return $left eq $right;
    }
}
