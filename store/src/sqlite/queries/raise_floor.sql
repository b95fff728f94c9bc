UPDATE meta SET floor = max(floor, ?1) WHERE one = 1
