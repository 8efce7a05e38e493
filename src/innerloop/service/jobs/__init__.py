"""What a job is, its states, and what a store of jobs must do. Knows no server and no database."""
