-- The events that happened within so many seconds of an event received in [from, to), and were received before `to`.
--
-- What a rule reads that needs more than one event: whichever of them came last, the others are here. As in
-- openai_audit_received whole hours are read, which all copies of an event share, so that FINAL decides among them.
CREATE VIEW IF NOT EXISTS openai_audit_around{on_cluster}
AS SELECT *
FROM openai_audit_logs FINAL
WHERE (workspaceID, sourceID, toStartOfHour(eventTime, 'UTC')) IN
(
    SELECT workspaceID, sourceID, arrayJoin(arrayMap(
        hour -> toDateTime(hour * 3600, 'UTC'),
        range(
            toUInt32(intDiv(greatest(toUnixTimestamp(eventTime), {seconds:UInt32}) - {seconds:UInt32}, 3600)),
            toUInt32(intDiv(toUnixTimestamp(eventTime) + 3599 + {seconds:UInt32}, 3600) + 1))))
    FROM
    (
        SELECT DISTINCT workspaceID, sourceID, toStartOfHour(eventTime, 'UTC') AS eventTime
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    )
)
AND receivedAt < {to:DateTime}
SETTINGS use_skip_indexes_if_final = 0
COMMENT 'Audit log events around those received in [from, to): openai_audit_around(from = …, to = …, seconds = …)'
