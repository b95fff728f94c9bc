SELECT user FROM owners WHERE id = ?1
