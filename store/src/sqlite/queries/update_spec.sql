UPDATE specs SET spec = ?2 WHERE seq = ?1
