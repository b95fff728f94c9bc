#!/bin/sh
# The Lyapunov exponent of the logistic map x -> r x (1 - x): how fast two neighbouring orbits part. Negative: the map settles into
# a cycle. Positive: chaos. At r = 4 it is ln 2 exactly, which is the check on everything else.
#
# usage: lyapunov.sh R ITERATIONS RESULT_FILE      writes "R EXPONENT"; the result appears whole or not at all
set -eu
r=$1 iterations=$2 result=$3

echo "job ${FLASH_JOB_ID:-none}, attempt ${FLASH_ATTEMPT:-none}: r = $r, $iterations iterations"
awk -v r="$r" -v iterations="$iterations" 'BEGIN {
    x = 0.3141592653589793
    # The orbit first forgets where it began.
    for (i = 0; i < 1000; i++) x = r * x * (1 - x)
    # The derivative of the map is r (1 - 2x); the exponent is the mean of its logarithm along the orbit. The logarithm of a product
    # of eight costs as little as that of one.
    for (i = 0; i < iterations; i += 8) {
        product = 1
        for (k = 0; k < 8; k++) {
            x = r * x * (1 - x)
            product *= r * (1 - 2 * x)
        }
        if (product < 0) product = -product
        # An orbit that meets x = 1/2 exactly has exponent minus infinity; a tiny derivative stands for it.
        if (product < 1e-300) product = 1e-300
        sum += log(product)
    }
    printf "%.4f %.6f\n", r, sum / i
}' >"$result.part"
mv "$result.part" "$result"
cat "$result"
