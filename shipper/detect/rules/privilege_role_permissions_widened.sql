-- A changed role may have members already, so that every permission it gains counts; a new one has none.
WITH
    if(eventType = 'role.updated',
        JSONExtract(rawLog, eventType, 'changes_requested', 'permissions_added', 'Array(String)'),
        JSONExtract(rawLog, eventType, 'permissions', 'Array(String)')) AS given,
    arrayFilter(permission -> arrayExists(pattern -> lower(permission) LIKE replaceAll(pattern, '*', '%'),
        {sensitive_permissions:Array(String)}), given) AS sensitive
SELECT *,
    coalesce(nullIf(JSONExtractString(rawLog, eventType, 'id'), ''), '(unnamed role)') AS entity,
    concat(if(notEmpty(sensitive), 'sensitive: ', 'adds '),
        arrayStringConcat(arraySlice(arraySort(arrayDistinct(if(notEmpty(sensitive), sensitive, given))), 1, 20), ', ')
    ) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE (eventType = 'role.updated' AND notEmpty(given)) OR (eventType = 'role.created' AND notEmpty(sensitive))
