SELECT id, policy FROM policies ORDER BY id DESC LIMIT $1
