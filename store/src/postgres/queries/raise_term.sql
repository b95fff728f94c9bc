-- Within a transaction of the term $1: it is told by another number from now on.
UPDATE meta SET term = $2 WHERE one = 1 AND term = $1
