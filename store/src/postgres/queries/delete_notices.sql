DELETE FROM notices WHERE revision <= $1
