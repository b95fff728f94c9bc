SELECT floor FROM meta WHERE one = 1
