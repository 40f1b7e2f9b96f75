-- Events that JSON functions cannot read, repaired or not.
WITH
    -- JSON functions read nothing of a document with one odd byte or number in it: this is the repaired one.
    if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
        replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
        '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable
SELECT *,
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    '' AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE NOT isValidJSON(readable)
