-- The three roles of the shipper in ClickHouse, each with the rights that its work needs and no others.
--
-- Replace `security` by your database (it must exist), run this as a user who may grant, and make the users at the end.
-- On a cluster add ON CLUSTER to each statement, or keep access control in Keeper.
--
-- `shipper run` and its like log in as a writer, people and dashboards as a reader; the migrator is used by hand, when a
-- new version comes. With these roles set `auto_migrate: false` for the writer: it could create no table anyway.


-- Writer: backfill, check, dead-letters, detect, findings, query, replay, run, status, watch.
--
-- It adds rows and reads them back: what is there already, what the ledger covers, who holds the lease. It has no
-- right to change or delete a row or a table, and none to another database. What it inserts can do harm all the same: a
-- row with the key of another takes its place when the table is merged. Keep its password like the data itself.
CREATE ROLE IF NOT EXISTS shipper_writer;
GRANT SELECT, INSERT ON security.* TO shipper_writer;


-- Reader: dead-letters list and show, detect --dry-run, findings list and show, query, status; dashboards, people.
--
-- rawLog, actorUserEmail and srcIP are personal data. To keep them from some readers, grant columns instead:
--   GRANT SELECT(eventTime, eventType, projectID) ON security.openai_audit_logs TO …;
CREATE ROLE IF NOT EXISTS shipper_reader;
GRANT SELECT ON security.* TO shipper_reader;


-- Migrator: schema apply.
--
-- It creates the tables and views, and notes which migrations were applied. It cannot read or change an event. The
-- last three lines are for servers that ask for the right to each table engine; leave them out where the server does not know that right.
-- `schema diff` needs more: it builds the schema in a scratch database of its own, and names the rights it lacks.
CREATE ROLE IF NOT EXISTS shipper_migrator;
GRANT CREATE TABLE, CREATE VIEW ON security.* TO shipper_migrator;
GRANT SELECT, INSERT ON security.openai_audit_migrations TO shipper_migrator;
GRANT TABLE ENGINE ON MergeTree TO shipper_migrator;
GRANT TABLE ENGINE ON ReplacingMergeTree TO shipper_migrator;
GRANT TABLE ENGINE ON AggregatingMergeTree TO shipper_migrator;


-- The users. A password is asked for, not written here; a certificate's common name can stand in for it:
--   CREATE USER shipper IDENTIFIED WITH sha256_password BY '…' HOST IP '10.0.0.0/8' DEFAULT ROLE shipper_writer;
--   CREATE USER shipper IDENTIFIED WITH ssl_certificate CN 'shipper' DEFAULT ROLE shipper_writer;
--   GRANT shipper_writer TO shipper;
