WITH
    JSONExtractString(rawLog, eventType, if(eventType = 'role.assignment.created', 'principal_id', 'id')) AS receiver,
    JSONExtractString(rawLog, eventType, 'changes_requested', 'role') AS role
SELECT *,
    coalesce(nullIf(actorUserEmail, ''), receiver) AS entity,
    if(role = '', '', concat('role ', role)) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE (eventType = 'role.assignment.created' OR (eventType IN ('user.updated', 'service_account.updated')
        AND role != '' AND NOT has({ordinary_roles:Array(String)}, lower(role))))
    AND receiver != '' AND receiver IN (actorUserID, serviceAccountID)
