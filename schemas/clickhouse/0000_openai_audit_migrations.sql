-- What has been applied, so that a later version knows what is left to do.
CREATE TABLE IF NOT EXISTS openai_audit_migrations{on_cluster}
(
    version UInt32 COMMENT 'Number of the migration: the digits its file name begins with',
    name String COMMENT 'File name of the migration, without .sql',
    checksum String COMMENT 'SHA-256 of the file, hexadecimal: an applied file never changes',
    appliedAt DateTime COMMENT 'When it was applied (UTC)'
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY (version, name)
COMMENT 'Migrations applied to this database';
