SELECT
    * EXCEPT (changes, opened),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    arrayStringConcat(opened, ', ') AS detail
FROM
(
    SELECT
        *,
        if(JSONHas(rawLog, eventType, 'changes_requested'), 'changes_requested', 'data') AS changes,
        arrayFilter(
            setting -> has({visibility_values:Array(String)}, JSONExtractString(rawLog, eventType, changes, setting)),
            ['threads_ui_visibility', 'usage_dashboard_visibility']) AS opened
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType = 'organization.updated'
)
WHERE notEmpty(opened)
