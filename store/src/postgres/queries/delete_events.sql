DELETE FROM events WHERE revision <= $1
