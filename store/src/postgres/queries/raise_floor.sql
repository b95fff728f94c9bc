UPDATE meta SET floor = greatest(floor, $1) WHERE one = 1
