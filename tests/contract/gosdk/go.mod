module github.com/opentelekomcloud-community/lifecyclehook-operator/tests/contract/gosdk

go 1.26

require github.com/gophercloud/gophercloud/v2 v2.15.0
