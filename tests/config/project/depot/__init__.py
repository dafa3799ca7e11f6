"""An application for the tests of configuration: parcels are sorted and delivered."""
