-- About no workspace: a rule looks at all of them.
SELECT
    '' AS workspaceID,
    '' AS sourceID,
    runID AS id,
    finishedAt AS eventTime,
    status AS eventType,
    '' AS actorUserEmail,
    '' AS actorUserID,
    '' AS serviceAccountID,
    '' AS apiKeyID,
    '' AS srcIP,
    CAST([], 'Array(String)') AS resources,
    rule AS entity,
    leftUTF8(error, 500) AS detail
FROM openai_audit_detections
WHERE finishedAt >= {from:DateTime} AND finishedAt < {to:DateTime} AND live AND status = 'failed'
