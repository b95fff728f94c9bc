-- Shapes are the only ones of the three that users can vary without end.
DELETE FROM shapes s
WHERE (SELECT count(*) FROM shapes) > $1
  AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.shape_id = s.id)
  AND NOT EXISTS (SELECT 1 FROM events e WHERE e.shape_id = s.id)
