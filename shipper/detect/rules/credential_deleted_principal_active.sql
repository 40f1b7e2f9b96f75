-- What was done by a user, a service account or an API key that had been deleted. Whichever of the two, the deletion or
-- the deed, came last is in the window. `recent` are all ids that the events of the window name as actor or as deleted;
-- `deleted` their deletions, at most {deleted_seconds} from these events, and mostly none. The last
-- deletion before a deed will do: when another one arrives, the deed has been found already.
WITH
    recent AS
    (
        SELECT workspaceID, sourceID, eventTime, arrayJoin([actorUserID, serviceAccountID, apiKeyID,
            JSONExtractString(resources[1], 'id')]) AS principal
        FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
        WHERE principal != ''
    ),
    deleted AS
    (
        SELECT workspaceID, sourceID, JSONExtractString(resources[1], 'id') AS principal, eventTime AS deletedAt,
            max(receivedAt >= {from:DateTime}) AS deletedNew
        FROM openai_audit_logs
        WHERE eventType IN ('user.deleted', 'service_account.deleted', 'api_key.deleted', 'tenant.user.removed',
                'tenant.service_account.deleted', 'tenant.admin_api_key.deleted')
            AND eventTime >= (SELECT minOrNull(eventTime) FROM recent) - toIntervalSecond({deleted_seconds:UInt32})
            AND eventTime <= (SELECT maxOrNull(eventTime) FROM recent)
            AND JSONExtractString(resources[1], 'type') IN ('user', 'service_account', 'api_key', 'admin_api_key')
            AND (workspaceID, sourceID, principal) IN (SELECT workspaceID, sourceID, principal FROM recent)
            AND receivedAt < {to:DateTime}
        GROUP BY ALL
        SETTINGS final = 0
    ),
    deeds AS
    (
        SELECT *, receivedAt >= {from:DateTime} AS new,
            arrayJoin(arrayFilter(id -> id != '', [actorUserID, serviceAccountID, apiKeyID])) AS principal
        FROM openai_audit_logs
        WHERE eventTime > (SELECT minOrNull(deletedAt) FROM deleted)
            AND eventTime <= (SELECT maxOrNull(deletedAt) FROM deleted) + toIntervalSecond({deleted_seconds:UInt32})
            AND eventType NOT IN ('login.failed', 'logout.succeeded', 'logout.failed')
            AND (workspaceID, sourceID, principal) IN (SELECT workspaceID, sourceID, principal FROM deleted)
            AND receivedAt < {to:DateTime}
        SETTINGS final = 0
    )
SELECT deeds.* EXCEPT (new, principal),
    if(principal = actorUserID AND actorUserEmail != '', actorUserEmail, principal) AS entity,
    concat(multiIf(principal = actorUserID, 'user ', principal = serviceAccountID, 'service account ', 'API key '),
        principal, ' had been deleted') AS detail
FROM deeds
ASOF INNER JOIN deleted ON deeds.workspaceID = deleted.workspaceID AND deeds.sourceID = deleted.sourceID
    AND deeds.principal = deleted.principal AND deeds.eventTime > deleted.deletedAt + toIntervalSecond({grace:UInt32})
WHERE (new OR deletedNew) AND eventTime <= deletedAt + toIntervalSecond({deleted_seconds:UInt32})
