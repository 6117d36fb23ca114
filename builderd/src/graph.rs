//! The typed graph of operations (LLB): what frontends produce and the solver walks.
