#!/bin/sh
echo "Hello from $(uname -m), built for @PLATFORM@"
