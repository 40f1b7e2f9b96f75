WITH lower(coalesce(
    nullIf(JSONExtractString(rawLog, eventType, 'changes_requested', 'role'), ''),
    JSONExtractString(rawLog, eventType, 'data', 'role'))) AS role
SELECT *,
    coalesce(nullIf(lower(JSONExtractString(rawLog, eventType, 'data', 'email')), ''),
        nullIf(JSONExtractString(rawLog, eventType, 'id'), ''), '(unnamed)') AS entity,
    concat('role ', role) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('user.added', 'user.updated', 'invite.sent', 'service_account.created', 'service_account.updated')
    AND has({roles:Array(String)}, role)
