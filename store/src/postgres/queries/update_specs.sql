UPDATE specs p SET spec = u.spec FROM unnest($1::bigint[], $2::bytea[]) AS u (seq, spec) WHERE p.seq = u.seq
