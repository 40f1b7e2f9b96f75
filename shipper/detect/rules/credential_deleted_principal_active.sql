-- What was done by a user, a service account or an API key that had been deleted. Whichever of the two, the deletion or
-- the deed, came last is in the window. `recent` are all ids that the events of the window name as actor or as deleted;
-- `deleted` their deletions, at most {deleted_seconds} from these events, and mostly none.
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
        SELECT workspaceID, sourceID, eventTime AS deletedAt, receivedAt >= {from:DateTime} AS deletedNew,
            JSONExtractString(resources[1], 'id') AS principal,
            JSONExtractString(resources[1], 'type') AS kind
        FROM openai_audit_logs
        WHERE eventType IN ('user.deleted', 'service_account.deleted', 'api_key.deleted', 'tenant.user.removed',
                'tenant.service_account.deleted', 'tenant.admin_api_key.deleted')
            AND eventTime >= (SELECT minOrNull(eventTime) FROM recent) - toIntervalSecond({deleted_seconds:UInt32})
            AND eventTime <= (SELECT maxOrNull(eventTime) FROM recent)
            AND kind IN ('user', 'service_account', 'api_key', 'admin_api_key')
            AND (workspaceID, sourceID, principal) IN (SELECT workspaceID, sourceID, principal FROM recent)
            AND receivedAt < {to:DateTime}
    ),
    deeds AS
    (
        SELECT *, receivedAt >= {from:DateTime} AS new,
            arrayJoin(arrayFilter(id -> id != '', arrayDistinct([actorUserID, serviceAccountID, apiKeyID]))) AS principal
        FROM openai_audit_logs
        WHERE eventTime > (SELECT minOrNull(deletedAt) FROM deleted)
            AND eventTime <= (SELECT maxOrNull(deletedAt) FROM deleted) + toIntervalSecond({deleted_seconds:UInt32})
            AND eventType NOT IN ('login.failed', 'logout.succeeded', 'logout.failed')
            AND (workspaceID, sourceID, principal) IN (SELECT workspaceID, sourceID, principal FROM deleted)
            AND receivedAt < {to:DateTime}
    )
SELECT deeds.* EXCEPT (new, principal),
    if(principal = actorUserID AND actorUserEmail != '', actorUserEmail, principal) AS entity,
    concat(multiIf(kind = 'user', 'user ', kind = 'service_account', 'service account ', 'API key '), principal,
        ' was deleted at ', formatDateTime(deletedAt, '%F %T', 'UTC')) AS detail
FROM deeds
INNER JOIN deleted USING (workspaceID, sourceID, principal)
WHERE (new OR deletedNew) AND eventTime > deletedAt + toIntervalSecond({grace:UInt32})
    AND eventTime <= deletedAt + toIntervalSecond({deleted_seconds:UInt32})
