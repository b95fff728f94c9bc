DELETE FROM usage_days WHERE day < $1
