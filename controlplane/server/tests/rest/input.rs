//! Bad input for each route and each field, made from the document: none of it is our fault, and each gets a problem.
