//! Systems that do the same work as the mesh, or part of it, as their own experts would configure them.
