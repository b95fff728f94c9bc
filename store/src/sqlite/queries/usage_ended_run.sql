-- What the ledger needs of a job whose run has just ended.
SELECT shape_id, owner_id, started_at FROM jobs WHERE seq = ?1
