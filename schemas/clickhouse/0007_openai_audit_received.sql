-- The events received in [from, to), each exactly as FINAL shows it, without reading the rest of the table.
--
-- The index on receivedAt cannot do this under FINAL: for each granule it finds, every granule must be read whose keys
-- lie in the same range, in case a later copy of an event is there. A small part holds several sources, so its keys
-- range from the end of one to the end of another: most of the table. Here the index is asked without FINAL, where it
-- is exact, and only for the hours in which the received events happened; all copies of an event are in its hour. Then
-- FINAL decides among the copies, and receivedAt of the copy it chose is what counts.
--
-- toStartOfHour names UTC so that the index on the key can follow it. No skip index in the outer query, whatever the
-- profile of the user says: with use_skip_indexes_if_final_exact_mode = 0 it would hide later copies from FINAL.
CREATE VIEW IF NOT EXISTS openai_audit_received{on_cluster}
AS SELECT *
FROM openai_audit_logs FINAL
WHERE (workspaceID, sourceID, toStartOfHour(eventTime, 'UTC')) IN
(
    SELECT workspaceID, sourceID, toStartOfHour(eventTime, 'UTC')
    FROM openai_audit_logs
    WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
    SETTINGS final = 0
)
AND receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
SETTINGS use_skip_indexes_if_final = 0
COMMENT 'Audit log events received in [from, to): SELECT … FROM openai_audit_received(from = …, to = …)'
