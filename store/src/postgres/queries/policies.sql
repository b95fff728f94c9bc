SELECT id, policy FROM policies WHERE id = ANY($1)
