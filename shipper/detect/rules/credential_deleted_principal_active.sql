-- What was done by a user, a service account or an API key that had been deleted. Whichever of the two, the deletion or
-- the deed, came last is in the window. `recent` are all ids that the events of the window name as actor or as deleted;
-- `deletions` those of them that were deleted, at most {deleted_seconds} before these events, and mostly none. The last
-- deletion before a deed will do: when another one arrives, the deed has been found already.
--
-- All of it is read without FINAL: a copy of an event is the same deed, or the same deletion.
WITH
    recent AS
    (
        SELECT arrayJoin([actorUserID, serviceAccountID, apiKeyID, simpleJSONExtractString(resources[1], 'id')]) AS principal
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ),
    (
        SELECT (minOrNull(eventTime), maxOrNull(eventTime))
        FROM openai_audit_logs
        WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ) AS span,
    deletions AS
    (
        SELECT workspaceID, sourceID, simpleJSONExtractString(resources[1], 'id') AS principal, eventTime AS deletedAt,
            receivedAt >= {from:DateTime} AS deletedNew
        FROM openai_audit_logs
        WHERE eventType IN ('user.deleted', 'service_account.deleted', 'api_key.deleted', 'tenant.user.removed',
                'tenant.service_account.deleted', 'tenant.admin_api_key.deleted')
            AND eventTime >= span.1 - toIntervalSecond({deleted_seconds:UInt32})
            AND eventTime <= span.2
            AND simpleJSONExtractString(resources[1], 'type') IN ('user', 'service_account', 'api_key', 'admin_api_key')
            AND principal != '' AND principal IN (SELECT principal FROM recent)
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    ),
    (SELECT (minOrNull(deletedAt), maxOrNull(deletedAt), minOrNullIf(deletedAt, deletedNew)) FROM deletions) AS reach,
    deleted AS
    (
        SELECT workspaceID, sourceID, principal, deletedAt, max(deletedNew) AS deletedNew
        FROM deletions
        WHERE deletedAt >= reach.1 AND deletedAt <= reach.2
        GROUP BY ALL
    ),
    -- What is not new itself is read from the first new deletion on.
    deeds AS
    (
        SELECT *, receivedAt >= {from:DateTime} AS new
        FROM openai_audit_logs
        WHERE eventTime > reach.1
            AND eventTime <= reach.2 + toIntervalSecond({deleted_seconds:UInt32})
            AND (receivedAt >= {from:DateTime} OR eventTime > reach.3)
            AND eventType NOT IN ('login.failed', 'logout.succeeded', 'logout.failed')
            AND (actorUserID IN (SELECT principal FROM deleted) OR serviceAccountID IN (SELECT principal FROM deleted)
                OR apiKeyID IN (SELECT principal FROM deleted))
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    )
SELECT deeds.* EXCEPT (new, principal),
    if(principal = actorUserID AND actorUserEmail != '', actorUserEmail, principal) AS entity,
    concat(multiIf(principal = actorUserID, 'user ', principal = serviceAccountID, 'service account ', 'API key '),
        principal, ' had been deleted') AS detail
FROM (SELECT *, arrayJoin([actorUserID, serviceAccountID, apiKeyID]) AS principal FROM deeds) AS deeds
ASOF INNER JOIN deleted ON deeds.workspaceID = deleted.workspaceID AND deeds.sourceID = deleted.sourceID
    AND deeds.principal = deleted.principal AND deeds.eventTime > deleted.deletedAt + toIntervalSecond({grace:UInt32})
WHERE (new OR deletedNew) AND eventTime <= deletedAt + toIntervalSecond({deleted_seconds:UInt32})
