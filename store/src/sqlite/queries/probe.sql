UPDATE meta SET one = one WHERE one = 1
