SELECT term FROM meta WHERE one = 1
