SELECT id, username FROM owners WHERE id = ANY($1)
