"""Jobs, their metric values and logs, and the keys that created them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("total_episodes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("keep", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("started_at", moment),
        sa.Column("finished_at", moment),
        sa.Column("current_episode", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("error_message", sa.Text),
        sa.Column("results", sa.Text),
        sa.Column("model_path", sa.Text),
        sa.Column("wandb_run_id", sa.Text),
        sa.Column("lease_worker", sa.Text),
        sa.Column("lease_token", sa.BigInteger),
        sa.Column("lease_until", moment),
        sa.Column("metric_count", sa.BigInteger, nullable=False),
        sa.Column("log_count", sa.BigInteger, nullable=False),
    )
    op.create_index("jobs_newest", "jobs", ["created_at", "id"])
    op.create_table(
        "metrics",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Double),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.create_index("metrics_number", "metrics", ["job_id", "number"], unique=True)
    op.create_table(
        "log_lines",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    created = sa.ForeignKey("jobs.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED")
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, created, nullable=False),
    )
    op.create_index("idempotency_keys_job", "idempotency_keys", ["job_id"])
