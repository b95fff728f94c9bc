#!/bin/sh
# The Lyapunov exponent of the logistic map x -> r x (1 - x): how fast two neighbouring orbits part. Negative: the map settles into
# a cycle. Positive: chaos. At r = 4 it is ln 2 exactly, which is the check on everything else.
#
# usage: lyapunov.sh R ORBITS RESULT_FILE      writes "R EXPONENT ERROR"; the result appears whole or not at all
set -eu
export LC_ALL=C
r=$1 orbits=$2 result=$3

echo "job ${FLASH_JOB_ID:-none}, attempt ${FLASH_ATTEMPT:-none}: r = $r, $orbits orbits of 10,000 steps"
awk -v r="$r" -v orbits="$orbits" 'BEGIN {
    # Many orbits from starts that are spread evenly (golden ratio), and not one long orbit: at r = 4 rounding drives that one into
    # the fixed point 0 after some millions of steps. Their scatter also gives the error of the mean.
    for (orbit = 1; orbit <= orbits; orbit++) {
        x = orbit * 0.6180339887498949
        x -= int(x)
        # An orbit first forgets where it began.
        for (i = 0; i < 1000; i++) x = r * x * (1 - x)
        # The derivative of the map is r (1 - 2x); the exponent is the mean of its logarithm along the orbit. The logarithm of a
        # product of eight costs as little as that of one.
        exponent = 0
        for (i = 0; i < 10000; i += 8) {
            product = 1
            for (k = 0; k < 8; k++) {
                x = r * x * (1 - x)
                product *= r * (1 - 2 * x)
            }
            if (product < 0) product = -product
            # An orbit that meets x = 1/2 exactly has exponent minus infinity; a tiny derivative stands for it.
            if (product < 1e-300) product = 1e-300
            exponent += log(product)
        }
        exponent /= i
        sum += exponent
        squares += exponent * exponent
    }
    mean = sum / orbits
    variance = squares / orbits - mean * mean
    error = 0
    if (variance > 0) error = sqrt(variance / orbits)
    printf "%.2f %.6f %.6f\n", r, mean, error
}' >"$result.part"
mv "$result.part" "$result"
cat "$result"
