"""One-page reports: ``layout`` says what stands on a page, ``pdf`` and ``html`` draw it."""
