SELECT policy FROM policies WHERE id = ?1
