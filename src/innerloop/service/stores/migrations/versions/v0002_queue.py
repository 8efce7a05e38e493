"""The queue's own order and the count of workers that a job cost."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds both; what waits keeps its turn: queued since its last change, or held until its lease ends."""
    op.add_column("jobs", sa.Column("losses", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("jobs", sa.Column("due_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE jobs SET due_at = updated_at WHERE state = 'queued'")
    op.execute("UPDATE jobs SET due_at = lease_until WHERE state IN ('running', 'pausing', 'cancelling')")
    waiting = sa.text("due_at IS NOT NULL")
    op.create_index("jobs_due", "jobs", ["due_at", "id"], sqlite_where=waiting, postgresql_where=waiting)
