-- Hours are numbered since 1970. `last` is a source's hour with its last event before {hours} without one. It is looked
-- at once: in the window in which those hours, and the {wait} in which their events may still come in, have passed.
-- The arrays are computed once, and the week before is read only of sources that may be silent.
WITH
    (
        SELECT groupArray((workspaceID, sourceID, last))
        FROM
        (
            SELECT workspaceID, sourceID, groupUniqArray(intDiv(toUnixTimestamp(eventTime), 3600)) AS active,
                arrayJoin(arrayFilter(
                    hour -> (hour + 1 + {hours:UInt32}) * 3600 + {wait:UInt32} >= toUnixTimestamp({from:DateTime})
                        AND (hour + 1 + {hours:UInt32}) * 3600 + {wait:UInt32} < toUnixTimestamp({to:DateTime})
                        AND NOT arrayExists(other -> other > hour AND other <= hour + {hours:UInt32}, active),
                    active)) AS last
            FROM openai_audit_logs
            PREWHERE eventTime >= {from:DateTime} - toIntervalSecond({wait:UInt32} + ({hours:UInt32} + 1) * 3600)
                AND eventTime < {to:DateTime} - toIntervalSecond({wait:UInt32})
            WHERE receivedAt < {to:DateTime}
                -- The window has the end of an hour in it, {wait} later.
                AND intDiv(toUnixTimestamp({to:DateTime}) - 1 - {wait:UInt32}, 3600) * 3600
                    >= toUnixTimestamp({from:DateTime}) - {wait:UInt32}
            GROUP BY workspaceID, sourceID
        )
    ) AS candidates,
    (
        SELECT groupArray(candidate)
        FROM
        (
            SELECT workspaceID, sourceID, groupUniqArray(intDiv(toUnixTimestamp(eventTime), 3600)) AS active,
                arrayJoin(arrayFilter(
                    one -> one.1 = workspaceID AND one.2 = sourceID
                        AND length(arrayDistinct(arrayMap(hour -> intDiv(one.3 - hour, 24),
                            arrayFilter(hour -> hour <= one.3 AND hour + 168 > one.3, active)))) >= {days:UInt32},
                    candidates)) AS candidate
            FROM openai_audit_logs
            PREWHERE (workspaceID, sourceID) IN (SELECT one.1, one.2 FROM (SELECT arrayJoin(candidates) AS one))
                AND eventTime >= {from:DateTime} - toIntervalSecond({wait:UInt32} + ({hours:UInt32} + 169) * 3600)
                AND eventTime < {to:DateTime} - toIntervalSecond({wait:UInt32})
            WHERE receivedAt < {to:DateTime}
            GROUP BY workspaceID, sourceID
        )
    ) AS silent
SELECT
    * EXCEPT (hour, reads),
    sourceID AS entity,
    if(arrayExists(read -> read.1 >= (hour + 1 + {hours:UInt32}) * 3600 AND read.2 < (hour + 1 + {hours:UInt32}) * 3600 + {wait:UInt32}, reads),
        'read since, and nothing was there', 'not read since') AS detail
FROM
(
    SELECT *, intDiv(toUnixTimestamp(eventTime), 3600) AS hour
    FROM openai_audit_logs
    PREWHERE (workspaceID, sourceID) IN (SELECT one.1, one.2 FROM (SELECT arrayJoin(silent) AS one))
        AND eventTime >= {from:DateTime} - toIntervalSecond({wait:UInt32} + ({hours:UInt32} + 1) * 3600)
        AND eventTime < {to:DateTime} - toIntervalSecond({wait:UInt32})
    WHERE receivedAt < {to:DateTime} AND has(silent, (workspaceID, sourceID, hour))
    ORDER BY eventTime DESC, id
    LIMIT 1 BY workspaceID, sourceID, hour
) AS lasts
LEFT JOIN
(
    SELECT workspaceID, sourceID, groupArray((toUnixTimestamp(startedAt), toUnixTimestamp(finishedAt))) AS reads
    FROM openai_audit_runs
    WHERE status = 'ok' AND (workspaceID, sourceID) IN (SELECT one.1, one.2 FROM (SELECT arrayJoin(silent) AS one))
        AND startedAt >= {from:DateTime} - toIntervalSecond({wait:UInt32}) AND startedAt < {to:DateTime}
    GROUP BY workspaceID, sourceID
) AS runs USING (workspaceID, sourceID)
