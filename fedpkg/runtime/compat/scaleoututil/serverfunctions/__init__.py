"""FEDn's server functions under the name of its successor."""
