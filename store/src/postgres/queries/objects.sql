SELECT name, value FROM objects WHERE kind = $1 ORDER BY name
