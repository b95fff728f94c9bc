UPDATE jobs SET shape_id = ?3, policy_id = ?4 WHERE seq = ?1 AND id = ?2
