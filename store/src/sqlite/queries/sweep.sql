-- Shapes are the only ones of the three that users can vary without end.
DELETE FROM shapes
WHERE (SELECT count(*) FROM shapes) > ?1
  AND id NOT IN (SELECT shape_id FROM jobs UNION SELECT shape_id FROM events)
