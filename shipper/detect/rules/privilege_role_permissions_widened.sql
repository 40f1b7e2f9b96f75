-- Permissions that privilege_role_sensitive_permissions finds are left to it.
WITH
    JSONExtract(rawLog, eventType, 'changes_requested', 'permissions_added', 'Array(String)') AS given
SELECT *,
    coalesce(nullIf(JSONExtractString(rawLog, eventType, 'id'), ''), '(unnamed role)') AS entity,
    concat('adds ', arrayStringConcat(arraySlice(arraySort(arrayDistinct(given)), 1, 20), ', ')) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType = 'role.updated' AND notEmpty(given)
    AND NOT arrayExists(permission -> arrayExists(pattern -> lower(permission) LIKE replaceAll(pattern, '*', '%'),
        {sensitive_permissions:Array(String)}), given)
