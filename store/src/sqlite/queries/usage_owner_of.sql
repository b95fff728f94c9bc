SELECT shape_id, owner_id FROM jobs WHERE seq = ?1 AND id = ?2
